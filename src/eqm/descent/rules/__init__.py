"""Rules: how to make one step. A rule is a frozen dataclass of settings; its state is kept outside."""
