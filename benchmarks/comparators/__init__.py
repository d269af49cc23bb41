"""What the platform is measured against, written as its users run it."""
