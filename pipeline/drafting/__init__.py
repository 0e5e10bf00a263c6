"""Looking at a table that nobody described yet, and drafting its configuration and schema."""
