"""The order of the steps, and the command line. Start reading at `flows/finetune.py`."""
