# As CrossFormer's authors train it (https://arxiv.org/abs/2108.00154, section 4.3; cheerss/CrossFormer, segmentation):
# Swin's schedule, no norms behind the features. It starts from our recipe's weights; `weights` may
# name their file too, which lies where no program can fetch it.
_base_ = "_base_/upernet.py"

weights = "work_dirs/imagenet/crossformer_300e/crossformer_s/model.safetensors"
model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="crossformer_s",
        drop_path_rate=0.2,
        init_cfg=dict(type="Pretrained", checkpoint=weights),
    )
)
# By their published names the norms in networks on offsets are none, and these networks no positions: they decay.
optim_wrapper = dict(paramwise_cfg=dict(decay_mult={"*.dpb.*": 1.0}))
