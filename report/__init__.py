"""Reports about runs: plots, pictures, HTML pages and console output."""
