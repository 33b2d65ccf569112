"""From a folder of BreaKHis images to arrays, patient-disjoint splits and batches."""
