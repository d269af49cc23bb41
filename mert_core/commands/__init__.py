"""What each command of ``mert`` does; `mert_core.cli` says what they are called and which options they take."""
