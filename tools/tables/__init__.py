"""What README.md and results/README.md say of the stored reports, as Markdown."""
