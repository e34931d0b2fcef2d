"""cRSE: attention under a bias that is read from tables by how positions, colours and normals differ."""
