"""What foreign files, requests and environments must not get done; `python -m tests.attacks`."""
