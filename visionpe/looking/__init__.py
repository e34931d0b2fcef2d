"""A model on a picture, and over a folder of them, drawn: the ``visionpe look`` command."""
