"""The network of one fine-tune: building, weights, checkpoints, stages, losses, optimizer.

FunASR's own classes come through `trainer.funasr_parts`; the loop that trains is in
`trainer.finetune`. Begin with `build.py` and `stages.py`.
"""
