"""A slow, literal re-telling of Darknet's `validate_detector_map`, one box at a time, to test the fast one against."""

from __future__ import annotations

import math

import numpy as np

F = np.float32


def side(x1, w1, x2, w2):
    left = max(F(x1 - w1 / F(2)), F(x2 - w2 / F(2)))
    right = min(F(x1 + w1 / F(2)), F(x2 + w2 / F(2)))
    return F(right - left)


def iou(a, b):
    w, h = side(a[0], a[2], b[0], b[2]), side(a[1], a[3], b[1], b[3])
    inner = F(0) if w < 0 or h < 0 else F(w * h)
    union = F(F(a[2] * a[3]) + F(b[2] * b[3]) - inner)
    return F(0) if inner == 0 or union == 0 else F(inner / union)


def darknet_map(found, truth, classes, iou_thresh=0.5, points=0, thresh=0.25, difficult=None):
    iou_thresh = F(iou_thresh)
    per_class = [0] * classes
    tps, fps, ious = [0] * classes, [0] * classes, [0.0] * classes
    kept = []  # (score, class, truth or None)
    offset = 0
    for image, (hits, labels) in enumerate(zip(found, truth, strict=True)):
        for k in labels.class_ids:
            per_class[k] += 1
        taken = set()
        for box, k, score in zip(hits.boxes, hits.class_ids, hits.confidences, strict=True):
            best, best_iou = None, F(0)
            for j in range(len(labels.boxes)):
                here = iou(box, labels.boxes[j])
                if here > iou_thresh and k == labels.class_ids[j] and here > best_iou:
                    best, best_iou = offset + j, here
            drop = False
            if best is None and difficult is not None:
                hard = difficult[image]
                drop = any(iou(box, b) > iou_thresh and k == c for b, c in zip(hard.boxes, hard.class_ids, strict=True))
            if not drop:
                kept.append((score, k, best))
            if score > F(thresh):
                if best is not None and best not in taken:
                    tps[k] += 1
                    ious[k] += float(best_iou)
                else:
                    fps[k] += 1
            if best is not None:
                taken.add(best)
        offset += len(labels.boxes)

    kept.sort(key=lambda row: -row[0])
    aps = []
    used = set()
    curve = [[] for _ in range(classes)]
    tp, fp = [0] * classes, [0] * classes
    for _, k, best in kept:
        if best is not None and best not in used:
            used.add(best)
            tp[k] += 1
        else:
            fp[k] += 1
        for c in range(classes):
            seen = tp[c] + fp[c]
            curve[c].append((tp[c] / seen if seen else 0.0, tp[c] / per_class[c] if per_class[c] else 0.0))
    for c in range(classes):
        ap = 0.0
        if curve[c] and points == 0:
            precision, recall = curve[c][-1]
            for p, r in reversed(curve[c][:-1]):
                step, recall = recall - r, r
                precision = max(precision, p)
                ap += step * precision
            ap += recall * precision
        elif points:
            for point in range(points):
                ap += max((p for p, r in curve[c] if r >= point / (points - 1)), default=0.0) / points
        aps.append(ap)
    total, wrong = sum(tps), sum(fps)
    return {
        "map": math.fsum(aps) / classes,
        "ap": aps,
        "tp": tps,
        "fp": fps,
        "fn": offset - total,
        "average_iou": sum(ious) / (total + wrong) if total + wrong else 0.0,
        "detections": len(kept),
    }
