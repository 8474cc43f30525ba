"""Nuclei in microscope images: the 2018 Data Science Bowl from the archive to the submission."""
