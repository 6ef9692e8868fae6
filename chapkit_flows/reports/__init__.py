"""What people read about runs: comparisons, why two results differ, and pages that stand on their own."""
