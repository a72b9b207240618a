"""Parts of the report's page: pictures, scores, rounds, and the packaged template, style and script."""
