"""The search: sweep files, trials, Ray Tune as executor, an Optuna study as the record."""
