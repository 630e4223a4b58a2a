"""The path from listed files to batches; each module says its part."""
