"""What test.py, classify.py and export.py join: a trained network and the images it sees."""
