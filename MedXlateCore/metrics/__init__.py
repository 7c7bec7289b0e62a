"""Evaluation: protocols, metrics on images and regions, statistics over patients, reports and pictures. No torch."""
