"""Fine-tuning: labelled data in, templates, metrics and reports; `finetune.py` stacks them into a run."""
