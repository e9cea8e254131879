"""What only a GPU can show: speed, memory and waits at the released size, and the same results.

    pytest -m gpu tests/gpu/test_training.py     # two commands, each writes what it measures at
    pytest -m gpu tests/gpu/test_decoding.py     # once to $OUT/gpu.json, else outputs/gpu.json

Weights are random and made on the device, so nothing is downloaded. What a machine with PyTorch and
transformers lacks is gathered by `python -m tests.gpu.carry DIR`. Each measurement is a function of
a device and a size (`measure`): `test_on_the_cpu.py` runs all of them on the CPU with a tiny model,
so that they are known to work before a GPU is rented.
"""
