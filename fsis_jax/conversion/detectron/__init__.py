"""Detectron: the weights of its Caffe2 models, and its YAML files."""
