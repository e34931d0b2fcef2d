_base_ = "mmpretrain::_base_/default_runtime.py"

custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)
# Weights and description for timm.create_model, written after training.
custom_hooks = [dict(type="ExportHook")]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
# As in mmpretrain, without the scope that its browse_dataset.py takes for an argument.
visualizer = dict(_delete_=True, type="UniversalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
