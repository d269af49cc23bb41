"""Tables, figures, the leaderboard and ``report.html``."""
