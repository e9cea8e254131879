"""Figures, not tests: stock FunASR and our trainer side by side."""
