"""Writers of the export formats, and the model card."""
