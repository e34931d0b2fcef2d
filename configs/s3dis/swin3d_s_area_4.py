_base_ = "swin3d_s.py"

train_dataloader = dict(dataset=dict(dataset=dict(test_area=4)))
val_dataloader = dict(dataset=dict(test_area=4))
test_dataloader = dict(dataset=dict(test_area=4))
test_evaluator = dict(counts="work_dirs/s3dis/swin3d_s_area_4.json")
