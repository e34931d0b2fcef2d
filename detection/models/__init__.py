"""timm models in the places where OpenMMLab looks for a classifier, a backbone or a neck."""
