"""Maintainers' tools: build the detector, train the compact network, write locks, licences and the model card."""
