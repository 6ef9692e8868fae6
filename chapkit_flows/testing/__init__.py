"""Contract suites that any store or database must pass; third parties may run them too."""
