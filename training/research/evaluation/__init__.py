"""The tables of this project: judges, detector, rewriters, checks, human sheets."""
