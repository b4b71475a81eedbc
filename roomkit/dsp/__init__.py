"""Pure sample maths: companding, resampling, levels, mixing, framing, tones. Needs numpy and nothing of the house."""
