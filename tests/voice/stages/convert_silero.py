"""Makes roomkit/voice/stages/silero_vad.npz of Silero's own silero_vad.onnx; needs `pip install onnx`.

    python tests/voice/stages/convert_silero.py SILERO_VAD.ONNX OUT.NPZ

Only the half of the model for 16 kHz is taken. Each convolution becomes a matrix (taps after one another, without those
that see only padding). The sigmoid gates of the LSTM are halved, because a sigmoid is half of a tanh of half."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

TAPS = ([0, 1, 2], [0, 1, 2], [1, 2], [1])


def convert(source: str, target: str) -> None:
    import onnx
    from onnx import numpy_helper

    given: dict[str, Any] = {
        tensor.name.removeprefix("model."): numpy_helper.to_array(tensor)
        for tensor in onnx.load(source).graph.initializer
    }
    made: dict[str, Any] = {}
    for number, taps in enumerate(TAPS):
        weight = given[f"encoder.{number}.reparam_conv.weight"]
        made[f"encoder{number}"] = weight.transpose(2, 1, 0)[taps].reshape(-1, weight.shape[0])
        made[f"encoder{number}_bias"] = given[f"encoder.{number}.reparam_conv.bias"]
    half = np.full(512, 0.5, dtype=np.float32)
    half[256:384] = 1
    both = np.concatenate((given["decoder.rnn.weight_ih"], given["decoder.rnn.weight_hh"]), axis=1)
    made["memory"] = both.T * half
    made["memory_bias"] = (given["decoder.rnn.bias_ih"] + given["decoder.rnn.bias_hh"]) * half
    made["output"] = given["decoder.decoder.2.weight"].reshape(128)
    made["output_bias"] = given["decoder.decoder.2.bias"]
    np.savez(target, **{name: np.ascontiguousarray(value) for name, value in made.items()})


if __name__ == "__main__":
    convert(*sys.argv[1:3])
