"""The path from listed files to batches; see the design in each module."""
