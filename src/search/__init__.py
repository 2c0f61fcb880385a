"""What a search stands on: its space, its study in Optuna's storage, its page, and edits of params.yaml."""
