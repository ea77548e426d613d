"""Who works on what, as an object in the store: taken, renewed and given back by conditional writes."""
