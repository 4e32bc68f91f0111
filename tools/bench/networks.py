"""The networks of the tables in docs/speed.md and docs/guides/deployment.md."""

SIZES = {  # names of cfgs in cfg/, with the side of the input
    "yolo-fastest-1.1": 320,
    "yolov4-tiny": 416,
    "yolov4": 416,
    "csresnext50-panet-spp": 512,
    "csresnext50": 224,
}
