"""One fine-tune of Fun-ASR-Nano: data, model, losses, optimisation, decoding, scoring, tracking."""
