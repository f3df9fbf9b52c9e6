"""Pictures, plots and pages for people."""
