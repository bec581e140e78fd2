"""A week back and a week ahead, hour by hour."""
