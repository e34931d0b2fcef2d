"""Parts of tools/show_points.py and tools/predict_scan.py."""
