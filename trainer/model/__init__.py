"""The network of one fine-tune: building, weights, stages, losses, optimizer.

FunASR's own classes come through `trainer.funasr_parts`. Begin with `build.py` and `stages.py`.
"""
