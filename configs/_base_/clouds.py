"""What every recipe for point clouds shares: hooks and loops."""

custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)
default_scope = "mmengine"
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_best="mIoU"),
)
custom_hooks = [dict(type="ResumableRandomnessHook")]
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
# Over several GPUs; where there is one, it stays a plain batch norm.
sync_bn = "torch"
randomness = dict(seed=0)
