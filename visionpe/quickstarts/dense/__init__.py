"""Detection and segmentation of digits in scenes: trained, tested at several scales, drawn."""
