"""Findings into ClickHouse: tables from the schemas, numbered migrations, a writer that repeats harmlessly."""
