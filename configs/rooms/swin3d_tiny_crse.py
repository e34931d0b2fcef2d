_base_ = "_base_/rooms.py"

model = dict(pos_encoding="crse")
