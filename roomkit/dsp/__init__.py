"""Pure sample maths: companding, resampling, levels, mixing, framing, tones. Needs numpy, and nothing else of the house."""
