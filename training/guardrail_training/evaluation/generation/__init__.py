"""What a run's adapter writes, beside what the model wrote before."""
