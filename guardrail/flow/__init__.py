"""The one flow: what it asks for, what it keeps, how it judges, how it mends."""
