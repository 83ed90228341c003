"""Reports: run directories in, a table, plots and one self-contained page out. Nothing here imports torch."""
