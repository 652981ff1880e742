"""Object detection: pictures in, boxes out; preprocessing, decoding, suppression, drawing and evaluation."""
