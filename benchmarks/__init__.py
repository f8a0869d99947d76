"""Speed, measured: ratios against a baseline in the same run."""
